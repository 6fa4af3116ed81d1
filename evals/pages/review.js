// Copy buttons: shown only where there is a script to serve them.
for (const button of document.querySelectorAll("button[data-of]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.of);
    const said = document.getElementById("said");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      said.textContent = "Copied to the clipboard.";
    } catch {
      getSelection().selectAllChildren(code);
      said.textContent = "Selected: copy it with your keyboard.";
    }
  });
}
