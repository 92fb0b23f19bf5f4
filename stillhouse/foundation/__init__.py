"""What every room stands on: errors, seeding, events, files, energy. No torch here."""
