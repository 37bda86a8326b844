// Login, list, update and export with Fastify and node-postgres, one process per core. One statement returns the list
// as JSON; Redis holds it until the next write.
import cluster from 'node:cluster';
import { pbkdf2, timingSafeEqual } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { PassThrough } from 'node:stream';
import { promisify } from 'node:util';
import ExcelJS from 'exceljs';
import { createSigner, createVerifier } from 'fast-jwt';
import Fastify from 'fastify';
import { Redis } from 'ioredis';
import pg from 'pg';

const { DATABASE_URL, REDIS_URL, JWT_SECRET, PORT } = process.env;
const LIST = 'peer-fastify:products';
const LIST_SECONDS = 300;
const TYPE = 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet';
const ACCOUNT = 'select id, password, is_staff from users where lower(username) = lower($1) and is_active';
const UPDATE = `
update products set name = coalesce($2, name), price = coalesce($3::numeric, price) where id = $1`;
const ROWS = `
select p.id, p.name, p.description, c.name as category_name, p.price, p.created_at,
       coalesce(array_agg(t.name order by t.name collate "C") filter (where t.id is not null), '{}') as tags
  from products p
  join categories c on c.id = p.category_id
  left join product_tags pt on pt.product_id = p.id
  left join tags t on t.id = pt.tag_id
 group by p.id, c.name
 order by p.id`;
const JSON_ROWS = `
select coalesce(json_agg(json_build_object(
         'id', id, 'name', name, 'description', description, 'category_name', category_name, 'price', price,
         'created_at', to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'tags', tags) order by id),
       '[]')::text as body
  from (${ROWS}) rows`;

function serve() {
  const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 8 });
  const redis = new Redis(REDIS_URL);
  const sign = createSigner({ key: JWT_SECRET, algorithm: 'HS256', expiresIn: 3_600_000 });
  const verify = createVerifier({ key: JWT_SECRET, algorithms: ['HS256'], cache: true });
  const app = Fastify({ logger: false });

  const user = async (request, reply) => {
    const [scheme, token] = (request.headers.authorization ?? '').split(' ');
    try {
      if (scheme !== 'Bearer') throw new Error('no token');
      request.claims = verify(token);
    } catch {
      return reply.code(401).send();
    }
  };

  app.post('/api/login/', async (request, reply) => {
    const { username, password } = request.body;
    const { rows } = await pool.query(ACCOUNT, [username]);
    const [, iterations, salt, hash] = rows[0]?.password.split('$') ?? [];
    const derived = rows[0] && (await promisify(pbkdf2)(password, salt, Number(iterations), 32, 'sha256'));
    if (!derived || !timingSafeEqual(derived, Buffer.from(hash, 'base64'))) return reply.code(401).send();
    return { token: sign({ sub: rows[0].id, staff: rows[0].is_staff }) };
  });

  app.get('/api/products/', { onRequest: user }, async (_, reply) => {
    let body = await redis.getBuffer(LIST);
    if (body === null) {
      const { rows } = await pool.query({ name: 'list', text: JSON_ROWS });
      body = rows[0].body;
      await redis.set(LIST, body, 'EX', LIST_SECONDS);
    }
    return reply.type('application/json').send(body);
  });

  app.get('/api/products/export/', { onRequest: user }, async (_, reply) => {
    const { rows } = await pool.query({ name: 'export', text: ROWS });
    const stream = new PassThrough();
    const book = new ExcelJS.stream.xlsx.WorkbookWriter({ stream });
    const sheet = book.addWorksheet('Products');
    sheet.addRow(['ID', 'Name', 'Description', 'Category', 'Price', 'Created at', 'Tags']).commit();
    sheet.getColumn(6).numFmt = 'yyyy-mm-dd hh:mm:ss';
    reply.type(TYPE).header('Content-Disposition', 'attachment; filename="products.xlsx"');
    (async () => {
      for (const row of rows) {
        const { name, description, category_name: category } = row;
        const tags = row.tags.join(', ');
        sheet.addRow([Number(row.id), name, description, category, Number(row.price), row.created_at, tags]).commit();
        if (stream.writableNeedDrain) await new Promise((resolve) => stream.once('drain', resolve));
      }
      await book.commit();
    })().catch((error) => stream.destroy(error));
    return reply.send(stream);
  });

  app.patch('/api/products/:id/', { onRequest: user }, async (request, reply) => {
    if (!request.claims.staff) return reply.code(403).send();
    const { name = null, price = null } = request.body;
    const changed = await pool.query(UPDATE, [request.params.id, name, price]);
    await redis.del(LIST);
    return reply.code(changed.rowCount === 1 ? 200 : 404).send({ id: Number(request.params.id) });
  });

  app.listen({ port: Number(PORT), host: '127.0.0.1', backlog: 2048 });
}

if (cluster.isPrimary) {
  for (let worker = 0; worker < availableParallelism(); worker++) cluster.fork();
  cluster.on('exit', () => process.exit(1));
  process.on('SIGTERM', () => process.exit(0));
} else {
  serve();
}
