-- Deactivates an account: its next request is rejected. $1 username
with changed as (
    update users
       set is_active = false
     where fold_case(username) = fold_case($1)
    returning id
), ended as (
    delete from sessions
     where user_id in (select id from changed)
)
select id
  from changed
