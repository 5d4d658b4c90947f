"""What lives where it was made: responses, files, batches and the like, each on one instance."""
