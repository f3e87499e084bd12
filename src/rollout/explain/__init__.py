"""Why a version answers as it does: one prediction, asked again with parts of its inputs left out."""
