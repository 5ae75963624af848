// Shows the feedback that belongs to the chosen answer of a question, and says it to screen readers.
document.addEventListener("DOMContentLoaded", () => {
  for (const form of document.querySelectorAll("form.quiz")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const status = form.querySelector("[role=status]");
      const chosen = form.querySelector("input:checked");
      if (!chosen) {
        status.className = "";
        status.textContent = "Choose an answer first.";
        return;
      }
      const bytes = Uint8Array.from(atob(form.dataset.feedback), (letter) => letter.charCodeAt(0));
      const [right, text] = JSON.parse(new TextDecoder().decode(bytes))[chosen.value];
      status.className = right ? "right" : "wrong";
      status.textContent = `${right ? "✓ Right." : "✗ Not quite."} ${text}`;
    });
    form.addEventListener("change", () => {
      form.querySelector("[role=status]").textContent = "";
    });
  }
});
