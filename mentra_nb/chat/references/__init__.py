"""What is handed over with a question: variables, files and pictures as parts of a message, bounded and masked."""
