// Copy buttons: shown only where there is a script to serve them.
const buttons = document.querySelectorAll("button[data-of]");
for (const button of buttons) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.of);
    const said = document.getElementById("said");
    try {
      await navigator.clipboard.writeText(code.textContent);
      for (const each of buttons) each.textContent = each === button ? "Copied" : "Copy";
      said.textContent = "Copied to the clipboard.";
    } catch {
      getSelection().selectAllChildren(code);
      said.textContent = "Selected: copy it with your keyboard.";
    }
  });
}
