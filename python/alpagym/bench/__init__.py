"""`alpagym bench`: what is measured is data (`cases`), how is in a module for each command."""
