// What every page does: the theme, the key, and how a request fails in words.
"use strict";

const byId = (id) => document.getElementById(id);

{
  const button = byId("theme");
  const isDark = () =>
    (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", document.documentElement.dataset.theme);
    show();
  });
  show();
}

// The key lives in its field and nowhere else: no storage, no cookie, no address.
async function ask(path, options = {}) {
  const key = byId("key") ? byId("key").value.trim() : "";
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Error("The service cannot be reached. Look whether it runs, then try again.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const error = new Error(problem.detail || `The service answered ${response.status}. Try again.`);
  error.code = problem.code;
  throw error;
}

function tell(error) {
  const place = byId("problem");
  place.textContent = error ? error.message : "";
  place.hidden = !error;
  const key = byId("key");
  if (key) key.setAttribute("aria-invalid", String(Boolean(error && /^(key|role)_/.test(error.code || ""))));
}

// A part of a page that the service rendered and escaped.
async function parts(response) {
  const holder = document.createElement("template");
  holder.innerHTML = await response.text();
  return holder.content;
}

const totalMonths = (years, months) =>
  years.value === "" && months.value === "" ? null : 12 * Number(years.value || 0) + Number(months.value || 0);
