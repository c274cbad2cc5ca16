// The page of experiments: asks for its overview again and again, and acts with the key in the page's field.
"use strict";

{
  const place = byId("overview"), sure = byId("sure"), status = byId("status");
  const LEAST_MS = 5000, TIMES = 10; // a report costs time: at most a tenth of it goes into asking
  let shown = "", timer = null, isOpen = place.dataset.open === "yes", closed = Promise.resolve();

  async function load({ quietly = false } = {}) {
    clearTimeout(timer);
    const begin = performance.now();
    try {
      const query = shown ? `?name=${encodeURIComponent(shown)}` : "";
      const got = await parts(await ask(`/page/experiments${query}`));
      const openDetails = place.querySelector("details")?.open;
      place.replaceChildren(got);
      if (openDetails && place.querySelector("details")) place.querySelector("details").open = true;
      tell(null);
      isOpen = true;
    } catch (error) {
      if (!quietly) place.replaceChildren();
      tell(error);
      if (/^(key|role)_/.test(error.code || "")) { isOpen = false; place.replaceChildren(); return; }
    }
    timer = setTimeout(again, Math.max(LEAST_MS, TIMES * (performance.now() - begin)));
  }

  function again() {
    const isBusy = document.hidden || sure.open || place.contains(document.activeElement);
    if (isBusy) timer = setTimeout(again, 1000);
    else load({ quietly: true });
  }

  async function confirmed(title, words) {
    await closed; // a dialog's end is told a moment after it: it must not be taken for the end of the next one
    byId("sure-title").textContent = title;
    byId("sure-words").textContent = words;
    byId("sure-yes").textContent = title.split(" ")[0] === "Take" ? "Take it back" : title.replace(/ \S+\?$/, "");
    sure.returnValue = "no";
    sure.showModal();
    closed = new Promise((done) => sure.addEventListener("close", () => done(sure.returnValue === "yes"), { once: true }));
    return closed;
  }

  async function act(path, body, words) {
    try {
      await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      await load();
      status.textContent = words;
    } catch (error) { tell(error); }
  }

  byId("unlock")?.addEventListener("submit", (event) => { event.preventDefault(); load(); });

  place.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if ("show" in button.dataset) {
      shown = button.dataset.show;
      await load();
      document.querySelector("#shown")?.scrollIntoView();
    } else if (button.dataset.act) {
      const { act: what, name, words } = button.dataset;
      if (await confirmed(`${button.textContent} ${name}?`, words)) {
        shown = what === "promote" ? name : "";
        await act(`/v1/experiments/${name}/${what}`, {}, { promote: "Promoted.", rollback: "Rolled back.", stop: "Stopped." }[what]);
      }
    }
  });

  place.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    if (form.id === "start") {
      const { name, challenger, mode } = Object.fromEntries(new FormData(form));
      shown = "";
      await act("/v1/experiments", { name: name.trim(), challenger: challenger.trim(), mode }, `Started ${name}.`);
    } else {
      const share = Number(form.querySelector("input").value) / 100;
      await act(`/v1/experiments/${form.dataset.name}/share`, { share }, `The challenger's share is ${Math.round(100 * share)} %.`);
    }
  });

  if (isOpen) load();
}
