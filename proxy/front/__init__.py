"""The Quart-Trio application: routes, admin API, health, pages."""
