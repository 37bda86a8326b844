-- Creates an account. $1 username, $2 email, $3 stored password, $4 whether it is staff
insert into users (username, email, password, is_staff)
values ($1, $2, $3, $4)
returning id
