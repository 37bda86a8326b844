-- Returns whether a username and an email are in use, regardless of case. $1 username, $2 email
select exists (select from users where fold_case(username) = fold_case($1)) as username,
       exists (select from users where fold_case(email) = fold_case($2)) as email
