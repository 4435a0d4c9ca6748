"""Methods that compare hidden layers of student and teacher."""
