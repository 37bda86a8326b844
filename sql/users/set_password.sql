-- Sets a password and ends every token and session of the account. $1 username, $2 stored password
with changed as (
    update users
       set password = $2, token_generation = token_generation + 1
     where fold_case(username) = fold_case($1)
    returning id
), ended as (
    delete from sessions
     where user_id in (select id from changed)
)
select id
  from changed
