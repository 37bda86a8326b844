-- Ends every token and session of a user. $1 user id
with changed as (
    update users
       set token_generation = token_generation + 1
     where id = $1
    returning id, token_generation
), ended as (
    delete from sessions
     where user_id in (select id from changed)
)
select id, token_generation
  from changed
