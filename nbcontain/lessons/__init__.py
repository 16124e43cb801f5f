"""The tutorials' exercises and questions: what %check, %hint, %solution and %quiz know."""
