// Show the numbers of the token under the pointer, tapped or focused, and let the arrow keys move through a card.
// The numbers come from the table on the card, which works without this script.
(() => {
  "use strict";
  const tip = document.getElementById("tip");

  const line = (table, name, value) => {
    const row = table.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = value;
  };

  const show = (token) => {
    const numbers = token.closest(".card").querySelector(".numbers table");
    const heads = numbers.tHead.rows[0].cells;
    const row = numbers.tBodies[0].rows[Number(token.dataset.n)];
    const cells = row.cells;
    const title = document.createElement("b");
    title.textContent = cells[0].textContent;
    const comparison = document.createElement("p");
    comparison.textContent = row.dataset.comparison;
    const table = document.createElement("table");
    for (let i = 1; i < cells.length; i++) line(table, heads[i].textContent, cells[i].textContent);
    tip.replaceChildren(title, comparison, table);
    tip.hidden = false;
    const at = token.getClientRects()[0];
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : at.bottom + 8) + scrollY}px`;
  };

  const hide = () => {
    tip.hidden = true;
  };

  const over = (handle) => (event) => {
    const token = event.target.closest ? event.target.closest("span.t") : null;
    if (token) handle(token, event);
  };

  document.addEventListener("mouseover", over(show));
  document.addEventListener("mouseout", over(hide));
  document.addEventListener("focusin", over(show));
  document.addEventListener("focusout", over(hide));
  document.addEventListener("click", over((token) => token.focus()));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    over((token) => {
      const all = [...token.closest(".card").querySelectorAll("span.t")];
      const next = all[all.indexOf(token) + step];
      if (!next) return;
      token.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      event.preventDefault();
    })(event);
  });
})();
