"""What a study measured, shown: tables, figures, the page."""
