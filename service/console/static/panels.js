// Panels by name. On a panel people decide on one kind of answer; which one a page has is its head's word.
//
// A panel is made once a page with its element and a desk: `take(truth)` decides, `accept()` does what Enter does,
// `leave()` gives the focus back to the item, `turn(words)` says that something else is asked now. Of several heads
// each has a panel, whose element is in the document only while it is that head's turn: a panel that listens to keys
// of the document looks whether its element is connected. A panel has
//   show(said, item, isHidden)  puts on it what the model says as people would, or null where that is hidden or there
//     is none; without an item, it leaves no trace on the page;
//   read()            returns what is on it as people say it, or null after saying why there is nothing;
//   isWritten         whether people may write on it without seeing what the model says.
// One that asks several things has also `offer`, what accepting says now, as `accepted` and in words as `said`, or
// null; `canGoBack`; and `back()`, which undoes the last of these things.
"use strict";

const PANELS = {};

// Says a truth shortly.
function words(truth) {
  const said = Object.values(truth ?? {});
  if (truth?.heads) return Object.entries(truth.heads).map(([name, own]) => `${name}: ${words(own)}`).join("; ");
  return said.length === 1 && typeof said[0] !== "object" ? String(said[0]) : JSON.stringify(truth);
}
