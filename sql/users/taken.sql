-- whether username $1 and email $2 are taken, without regard to case
select exists (select from users where lower(username) = lower($1)) as username,
       exists (select from users where lower(email) = lower($2)) as email
