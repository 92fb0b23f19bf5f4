"""The recipe: plain frozen data that says a whole run. No torch here."""
