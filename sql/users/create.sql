-- a new account; $1 username, $2 email, $3 password text, $4 whether staff
insert into users (username, email, password, is_staff)
values ($1, $2, $3, $4)
returning id
