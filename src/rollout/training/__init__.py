"""How bundles are made, and made again: recipes, checks of the data, reproduction, the gate."""
