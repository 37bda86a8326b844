-- Returns whether a username and an email are in use, regardless of case. $1 username, $2 email
select exists (select from users where lower(username) = lower($1)) as username,
       exists (select from users where lower(email) = lower($2)) as email
