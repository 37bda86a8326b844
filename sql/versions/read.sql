-- Returns the versions of both subjects in one row; every instance reads them before it serves a cached response.
select catalogue.version, catalogue.token, accounts.version, accounts.token
  from versions catalogue, versions accounts
 where catalogue.name = 'catalogue'
   and accounts.name = 'accounts'
