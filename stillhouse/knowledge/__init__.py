"""What a student may ask of a teacher, and who answers. Students see nothing else of a teacher."""
