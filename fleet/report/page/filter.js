(function () {
  "use strict";
  var form = document.getElementById("filter");
  if (!form) return;
  var rows = Array.prototype.slice.call(document.querySelectorAll("#all tbody tr"));
  var told = document.getElementById("shown");
  form.hidden = false;
  function apply() {
    var words = form.elements.words.value.toLowerCase().split(/\s+/);
    var outcome = form.elements.outcome.value;
    var shown = 0;
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var there = (!outcome || row.className === outcome) && words.every(function (w) { return text.indexOf(w) >= 0; });
      row.hidden = !there;
      if (there) shown++;
    });
    told.textContent = shown + " of " + rows.length + " checks";
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", function (e) { e.preventDefault(); });
  apply();
})();
