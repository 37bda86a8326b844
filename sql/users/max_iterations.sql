-- Returns the largest number of PBKDF2 iterations of all stored passwords, 0 without any.
select max_password_iterations() as max_iterations
