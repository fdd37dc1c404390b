// A browser reads no index from a folder: the search says where it works.
if (location.protocol === "file:") {
  document.addEventListener("DOMContentLoaded", () => {
    for (const field of document.querySelectorAll("input[data-md-component='search-query']")) {
      field.placeholder = "Search needs a server: run mkdocs serve";
      field.disabled = true;
    }
  });
}
