// The page of readings: takes a radiograph, sends it, puts the answer in its places.
"use strict";

{
  const form = byId("ask"), file = byId("file"), viewer = byId("viewer"), result = byId("result");
  const empty = { viewer: viewer.innerHTML, result: result.innerHTML };
  let chosen = null, asking = null;

  function choose(one) {
    if (!one) return;
    chosen = one;
    if (asking) asking.abort();
    tell(null);
    document.querySelector('label[for="file"]').textContent = "Choose another radiograph";
    result.innerHTML = empty.result; // a reading never stands beside a picture that it is not of
    viewer.innerHTML = empty.viewer;
    viewer.querySelector(".drop").replaceChildren(line("b", one.name), line("p", "not read yet"));
    const address = URL.createObjectURL(one);
    const image = new Image();
    image.onload = () => {
      if (chosen !== one || viewer.querySelector("svg")) return;
      image.className = "film";
      image.alt = "The radiograph, not read yet";
      viewer.replaceChildren(image);
    };
    image.onerror = () => URL.revokeObjectURL(address); // DICOM and TIFF are drawn by the service
    image.src = address;
    byId("status").textContent = `${one.name} is chosen.`;
  }

  function line(kind, words) {
    const made = document.createElement(kind);
    made.textContent = words;
    return made;
  }

  file.addEventListener("change", () => choose(file.files[0]));
  for (const name of ["dragover", "dragenter"])
    document.addEventListener(name, (event) => { event.preventDefault(); viewer.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) viewer.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    viewer.classList.remove("over");
    if (event.dataTransfer.files.length > 1) return tell(new Error("One radiograph at a time: drop a single file."));
    choose(event.dataTransfer.files[0]);
  });

  function missing() {
    const sex = form.querySelector('input[name="sex"]:checked');
    form.querySelector(".choice").setAttribute("aria-invalid", String(!sex));
    if (!chosen) { file.focus(); return "Choose a radiograph first."; }
    if (!sex) { form.querySelector('input[name="sex"]').focus(); return "Say the sex, or that it is unknown: the reading depends on it."; }
    return null;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lack = missing();
    if (lack) return tell(new Error(lack));
    const body = new FormData();
    body.append("file", chosen, "radiograph"); // its name may be a patient's
    body.append("sex", form.querySelector('input[name="sex"]:checked').value);
    if (byId("explain").checked) body.append("explain", "true");
    const age = totalMonths(byId("years"), byId("months"));
    if (age !== null) body.append("chronological_age_months", String(age));
    if (byId("subject").value.trim()) body.append("subject", byId("subject").value.trim());
    tell(null);
    if (asking) asking.abort();
    const own = asking = new AbortController();
    byId("send").disabled = true;
    form.setAttribute("aria-busy", "true");
    byId("status").textContent = "Reading…";
    try {
      const got = await parts(await ask("/page/reading", { method: "POST", body, signal: own.signal }));
      viewer.replaceChildren(got.querySelector('[data-part="viewer"]'));
      result.replaceChildren(got.querySelector('[data-part="result"]'));
      byId("status").textContent = "Read.";
      result.focus({ preventScroll: true });
      if (result.getBoundingClientRect().top > innerHeight * 0.8) result.scrollIntoView();
    } catch (error) {
      byId("status").textContent = "";
      if (!own.signal.aborted) { result.innerHTML = empty.result; tell(error); }
    } finally {
      if (asking === own) asking = null;
      byId("send").disabled = false;
      form.removeAttribute("aria-busy");
    }
  });

  viewer.addEventListener("input", (event) => {
    if (event.target.id !== "heat") return;
    viewer.querySelector(".map").setAttribute("opacity", String(event.target.value / 100));
    viewer.querySelector("output").textContent = `${event.target.value} %`;
  });

  result.addEventListener("submit", async (event) => {
    event.preventDefault();
    const own = event.target, status = own.querySelector('[role="status"]');
    const months = totalMonths(own.elements.years, own.elements.months);
    if (months === null) { status.textContent = "Say years or months first."; return; }
    try {
      await ask(`/v1/predictions/${own.dataset.prediction}/reference`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ bone_age_months: months }),
      });
      status.textContent = `Recorded: ${months} months.`;
    } catch (error) { status.textContent = error.message; }
  });
}
