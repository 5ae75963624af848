"""How the book is made: executing chapters, rendering pages, the PDF and course notebooks."""
