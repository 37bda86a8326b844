-- Returns what a login needs. There is always one row; its id is null when the username does not exist. The last
-- column is the username in lower case, in which usernames are compared. $1 username
select c.id, c.password, c.is_active, c.token_generation, fold_case($1) as lowercase_username
  from (select) one_row
  left join credentials_of($1) c on true
