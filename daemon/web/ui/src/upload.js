// Files: several at once, dropped or chosen, with how far each is.
export function takeDrops(form) {
  const input = form.querySelector("input[type=file]");
  const list = form.querySelector("[data-progress]");
  form.addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("over");
  });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    send([...event.dataTransfer.files]);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send([...input.files]);
  });

  async function send(files) {
    const results = await Promise.all(files.map(put));
    if (results.every(Boolean)) location.reload();
  }

  function put(file) {
    const row = list.appendChild(document.createElement("li"));
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", file.name);
    row.append(file.name, " ", bar);
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      const folder = form.elements.folder.value.replace(/^\/+|\/+$/g, "");
      const path = (folder ? `${folder}/` : "") + file.name;
      request.open("PUT", `/api/v1/files/${path.split("/").map(encodeURIComponent).join("/")}`);
      request.setRequestHeader("X-Form-Token", form.elements.form_token.value);
      request.upload.addEventListener("progress", (event) => (bar.value = event.loaded / event.total));
      request.addEventListener("loadend", () => {
        const good = request.status === 200 || request.status === 201;
        if (!good) bar.replaceWith(` was not taken: ${detail(request)}`);
        resolve(good);
      });
      request.send(file);
    });
  }

  function detail(request) {
    try {
      return JSON.parse(request.responseText).detail;
    } catch {
      return "the daemon is away";
    }
  }
}
