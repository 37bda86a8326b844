-- The owner of the schema: a role without superuser rights, and its database. The container of PostgreSQL runs this file
-- once, as the superuser `postgres`, when it initialises an empty volume.

-- a failed statement, which contains the password, is not logged
set log_min_error_statement = panic;
\set password `cat /run/secrets/owner_password`

-- createrole: `testshop migrate` creates the serving role and sets its password. Since PostgreSQL 16 it gives no power
-- over roles that `testshop` has not created.
create role testshop login createrole password :'password';
create database testshop owner testshop;
