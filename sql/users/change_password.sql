-- Changes a password, unless it has changed since it was checked, and ends every token and session of the account.
-- $1 user id, $2 old stored password, $3 new stored password
with changed as (
    update users
       set password = $3, token_generation = token_generation + 1
     where id = $1
       and password_of(id) = $2
    returning id, token_generation
), ended as (
    delete from sessions
     where user_id in (select id from changed)
)
select id, token_generation
  from changed
