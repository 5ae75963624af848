"""How the book is made: chapters executed, pages rendered, the PDF, course notebooks."""
