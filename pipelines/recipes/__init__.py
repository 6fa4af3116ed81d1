"""What a person writes: product files and recipes, as closed schemas with a loader each."""
