-- Returns the versions of catalogue and accounts in one row; every instance reads them before it serves a cached
-- response.
select catalogue.version, catalogue.token, accounts.version, accounts.token
  from (select version, token
          from catalogue_versions
         order by version desc
         limit 1) catalogue,
       (select version, token
          from accounts_versions
         order by version desc
         limit 1) accounts
