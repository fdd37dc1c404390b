"""The attribution methods: recipes."""
