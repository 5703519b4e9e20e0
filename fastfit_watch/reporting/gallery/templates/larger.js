"use strict";
(() => {
  // The larger view: the page's visible pictures one after the other. Links stay links: they lead to the files.
  const byId = (id) => document.getElementById(id);
  const dialog = byId("larger");
  const links = () => [...document.querySelectorAll("a[data-larger]")].filter((link) => link.getClientRects().length > 0);
  const picture = new Image();
  picture.id = "larger-picture";
  dialog.prepend(picture);
  let at = 0;
  const show = (number) => {
    const found = links();
    at = Math.max(0, Math.min(number, found.length - 1));
    const link = found[at];
    const name = link.closest("li").querySelector(".who").textContent.trim();
    picture.src = link.href;
    picture.alt = name;
    byId("larger-file").href = link.href;
    byId("larger-name").textContent = `${name} · ${at + 1} of ${found.length}`;
    byId("larger-previous").disabled = at === 0;
    byId("larger-next").disabled = at === found.length - 1;
    if (found[at + 1]) new Image().src = found[at + 1].href;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-larger]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    show(links().indexOf(link));
    dialog.showModal();
  });
  byId("larger-previous").addEventListener("click", () => show(at - 1));
  byId("larger-next").addEventListener("click", () => show(at + 1));
  byId("larger-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  // On the document: a button that is disabled at the end of the row loses the focus.
  document.addEventListener("keydown", (event) => {
    if (!dialog.open) return;
    const number = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: links().length - 1 }[event.key];
    if (number === undefined) return;
    event.preventDefault();
    show(number);
  });
  // The reader goes on where the larger view ended.
  dialog.addEventListener("close", () => {
    const link = links()[at];
    if (link) link.focus();
  });
})();
