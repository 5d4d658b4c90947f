"""A simulated Azure OpenAI resource for demos, tests and rehearsals."""
