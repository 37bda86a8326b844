-- what a login needs to know of username $1
select id, password, is_active, token_generation
  from credentials_of($1)
