-- another password, unless it was changed meanwhile; every token and session before it ends; $1 user, $2 text before,
-- $3 text from now on
with changed as (
    update users
       set password = $3, token_generation = token_generation + 1
     where id = $1
       and password_of(id) = $2
    returning id
), ended as (
    delete from sessions
     where user_id in (select id from changed)
)
select id
  from changed
