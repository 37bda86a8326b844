-- Revokes every token and ends every session of all accounts, also tokens from a history that a restored backup has
-- replaced: no account ever had the new token generation. Returns the number of accounts.
with floor as (
    update token_generation_floor
       set generation = greatest(generation + 1, token_generation_now())
    returning generation
), changed as (
    update users
       set token_generation = greatest(token_generation + 1, floor.generation)
      from floor
    returning id
), ended as (
    delete from sessions
)
select count(*) as accounts
  from changed
