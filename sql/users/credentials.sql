-- what a login needs to know of username $1; always one row, its id null where nobody has that name, and last the name in the case
-- in which names are compared
select c.id, c.password, c.is_active, c.token_generation, lower($1) as folded
  from (select) always
  left join credentials_of($1) c on true
