"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  // How each part came from the daemon, to tell later whether it is news.
  const source = new WeakMap();
  const remember = (list) => {
    for (const part of list.children) {
      source.set(part, part.outerHTML);
      if (part.matches("[data-list]")) remember(part);
    }
  };

  // Filters. Cards hold pictures of several looks; on a job's own page every picture is an item.
  const wanted = () => ({
    state: (document.querySelector("#filters input:checked") || { value: "" }).value,
    look: (byId("look") || { value: "" }).value,
  });
  const filter = () => {
    const { state, look } = wanted();
    let shown = 0;
    for (const item of all("[data-item]")) {
      const looks = item.dataset.look === undefined ? JSON.parse(item.dataset.looks) : [item.dataset.look];
      item.hidden = (state && item.dataset.state !== state) || (look && !looks.includes(look));
      shown += item.hidden ? 0 : 1;
    }
    for (const tile of all(".tile")) tile.hidden = Boolean(look) && tile.dataset.look !== look;
    for (const group of all("[data-group]")) {
      group.hidden = !all("[data-item]", group).some((item) => !item.hidden);
      if (state && !group.hidden && group.matches("details")) group.open = true;
    }
    for (const page of all("[data-states]")) page.hidden = state && !page.dataset.states.split(" ").includes(state);
    if (byId("nothing")) byId("nothing").hidden = shown > 0;
    const told = byId("shown");
    const words = state || look ? `${shown} shown` : "";
    if (told && told.textContent !== words) told.textContent = words;
    const hash = new URLSearchParams(Object.entries({ state, look }).filter(([, value]) => value)).toString();
    for (const link of all("[data-states], .pager a")) link.hash = hash;
    return hash;
  };
  const chooseFilter = ({ state, look }) => {
    const chip = all("#filters input").find((input) => input.value === (state || ""));
    if (chip) chip.checked = true;
    const select = byId("look");
    if (select) select.value = all("option", select).some((option) => option.value === look) ? look : "";
  };

  const slide = (input) => input.parentElement.style.setProperty("--at", `${input.value}%`);

  // What the reader has done to the page, and doing it again after a refresh.
  let live = true;
  // The first thing that begins within the window stays where it is, whatever comes or goes above it.
  const anchor = () => {
    const top = (part) => part.getBoundingClientRect().top;
    const part = scrollY > 0 && all("main [id]").find((part) => top(part) >= 0 && part.offsetHeight > 0);
    return part ? { id: part.id, top: top(part) } : null;
  };
  const snapshot = () => ({
    filter: wanted(),
    sliders: all(".compare input").filter((input) => input.value !== "0").map((input) => [input.id, input.value]),
    open: all("details").map((details) => [details.id, details.open]),
    focus: document.activeElement && document.activeElement.id,
    live,
    y: scrollY,
    anchor: anchor(),
  });
  const restore = (state) => {
    chooseFilter(state.filter);
    for (const [id, value] of state.sliders) if (byId(id)) byId(id).value = value;
    for (const [id, open] of state.open) if (byId(id)) byId(id).open = open;
    live = state.live;
    wake();
    const focused = state.focus && byId(state.focus);
    if (focused && focused !== document.activeElement) focused.focus({ preventScroll: true });
    const still = state.anchor && byId(state.anchor.id);
    if (still && still.offsetHeight > 0) {
      scrollBy({ top: still.getBoundingClientRect().top - state.anchor.top, behavior: "instant" });
    }
  };
  // Makes a fresh or replaced part usable: shows what needs scripts, and applies slider and filter.
  const wake = () => {
    for (const id of ["filters", "live", "density"]) if (byId(id)) byId(id).hidden = false;
    for (const button of all("[data-copy]")) button.hidden = false;
    for (const input of all(".compare input")) slide(input);
    for (const compare of all(".compare")) near.observe(compare);
    byId("live").setAttribute("aria-pressed", String(live));
    chooseDensity();
    filter();
    tellAge();
  };

  // The picture before is wholly clipped until the slider moves, and a clipped picture is never loaded by itself.
  const near = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const before = isIntersecting && target.querySelector(".before img");
      if (before) before.loading = "eager";
    }
  }, { rootMargin: "600px" });

  // The size of the pictures, kept for all pages; where nothing can be kept, for this one.
  let density = "medium";
  const chooseDensity = (size) => {
    try {
      if (size) localStorage.setItem("fastfit-density", size);
      density = localStorage.getItem("fastfit-density") || density;
    } catch {
      density = size || density;
    }
    document.documentElement.dataset.density = density;
    if (byId(`density-${density}`)) byId(`density-${density}`).checked = true;
  };

  // A page that should have been renewed by now says how old it is.
  const tellAge = () => {
    const age_s = (Date.now() - new Date(document.querySelector("#written time").dateTime)) / 1000;
    const renewed_s = Number(document.body.dataset.renewed);
    byId("stale").hidden = !renewed_s || age_s < renewed_s;
    const [count, unit] = age_s < 7200 ? [age_s / 60, "minutes"] : age_s < 172800 ? [age_s / 3600, "hours"] : [age_s / 86400, "days"];
    byId("age").textContent = `${Math.floor(count)} ${unit}`;
  };
  setInterval(tellAge, 15000);

  // Refreshing: only parts that differ are exchanged, and what the reader looks at stays where it is.
  const merge = (old, fresh) => {
    let at = old.firstElementChild;
    for (const part of [...fresh.children]) {
      const html = part.outerHTML;
      const known = part.id ? [...old.children].find((child) => child.id === part.id) : undefined;
      if (known === undefined) {
        old.insertBefore(document.adoptNode(part), at);
        source.set(part, html);
        if (part.matches("[data-list]")) remember(part);
        continue;
      }
      if (known === at) at = at.nextElementSibling;
      else old.insertBefore(known, at);
      if (source.get(known) === html) continue;
      source.set(known, html);
      if (known.matches("[data-list]") && part.matches("[data-list]")) merge(known, part);
      else {
        known.replaceWith(document.adoptNode(part));
        source.set(part, html);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextElementSibling;
      gone.remove();
    }
  };
  const refresh = async () => {
    const reply = await fetch(location.href, { cache: "no-store" });
    if (!reply.ok) return;
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    if (!fresh.getElementById("main")) return;
    const state = snapshot();
    for (const id of ["top", "main"]) merge(byId(id), fresh.getElementById(id));
    document.title = fresh.title;
    for (const key of ["refresh", "renewed"]) document.body.dataset[key] = fresh.body.dataset[key];
    restore(state);
  };

  let held = false;
  const isBusy = () => held || document.hidden || byId("larger").open || !getSelection().isCollapsed ||
    (document.activeElement && document.activeElement.matches("select"));
  const local = location.protocol === "file:";
  const tick = async () => {
    const wait_s = Number(document.body.dataset.refresh);
    setTimeout(async () => {
      if (live && !isBusy()) {
        // A page opened as a file may not read itself; it is loaded anew while work goes on.
        if (local && wait_s < 30) {
          history.replaceState(snapshot(), "");
          location.reload();
          return;
        }
        if (!local) await refresh().catch(() => {});
      }
      tick();
    }, wait_s * 1000);
  };

  const copy = async (button) => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Without https there is no clipboard to write to: select the line and copy as a keyboard would.
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
      getSelection().removeAllRanges();
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };

  document.addEventListener("input", (event) => {
    if (event.target.matches(".compare input")) slide(event.target);
  });
  document.addEventListener("change", (event) => {
    if (event.target.name === "density") chooseDensity(event.target.value);
    if (!event.target.closest("#filters")) return;
    const hash = filter();
    history.replaceState(history.state, "", hash ? `#${hash}` : location.pathname + location.search);
  });
  document.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", (event) => {
    if (event.target.matches("[data-copy]")) copy(event.target);
    if (event.target.id === "live") {
      live = !live;
      wake();
    }
  });
  document.addEventListener("pointerdown", () => (held = true));
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => (held = false));

  for (const id of ["top", "main"]) remember(byId(id));
  document.body.classList.add("alive");
  if (history.state) {
    history.scrollRestoration = "manual";
    scrollTo({ top: history.state.y, behavior: "instant" });
    restore(history.state);
  } else {
    chooseFilter(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
    wake();
  }
  tick();
})();
