-- Returns what a login needs. There is always one row; its id is null when the username does not exist. The column
-- `lowercase_username` is the username as usernames are compared. An unknown account causes the same lookups as a known
-- one. $1 username, $2 MACs of the client's address, $3 how long an address stays trusted, in seconds
select c.id, c.password, c.is_active, c.token_generation, fold_case($1) as lowercase_username,
       max_password_iterations() as max_iterations,
       exists (
           select
             from unnest($2::bytea[]) mac
             join trusted_addresses t
               on t.user_id = coalesce(c.id, 0)
              and t.digest = sha256(mac || int8send(coalesce(c.id, 0)))
              and t.last_login_at > now() - make_interval(secs => $3)
       ) as is_trusted_address
  from (select) one_row
  left join credentials_of($1) c on true
