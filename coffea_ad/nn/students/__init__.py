"""Small networks that repeat the scores of a finished model: the teacher's file, and its student."""
