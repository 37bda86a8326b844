-- the catalogue's version as this snapshot sees it; a fill labels its rows with it
select version, token, changed_at
  from versions
 where name = 'catalogue'
