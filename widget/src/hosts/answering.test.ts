import { beforeEach, describe, expect, it } from "vitest";

import type { Part, Payload } from "../protocol";
import { answer, Refusal, wholeExport, type Carrier } from "./answering";

/** A server with a list of seven names in pages of two, whose cursors end when the data change. */
class Server implements Carrier {
  readonly rows = { list: 2, few: 2, export: 2 };
  readonly known: Carrier["known"] = new Map();
  version = 1;
  asked: Record<string, unknown>[] = [];
  refuse: Refusal | null = null;

  ask<T>(_name: string, inputs: Record<string, unknown>): Promise<T> {
    this.asked.push(inputs);
    if (this.refuse) return Promise.reject(this.refuse);
    const [version = this.version, start = 0] = typeof inputs.cursor === "string" ? inputs.cursor.split("/").map(Number) : [];
    if (version !== this.version) return Promise.reject(new Refusal("cursor: the data changed since it was given out."));
    const names = Array.from({ length: 7 }, (_, row) => ({ name: `${this.version}.${row}` }));
    const end = start + 2;
    return Promise.resolve({
      total: 7,
      versions: { mart_spend: this.version },
      entities: names.slice(start, end),
      has_more: end < 7,
      next_cursor: end < 7 ? `${version}/${end}` : null,
    } as T);
  }
}

let server: Server;

beforeEach(() => {
  server = new Server();
});

async function list(pages: number, search = ""): Promise<string[]> {
  const told: Payload[] = [];
  server.asked = [];
  const parts: Part[] = ["entities"];
  await answer(server, { filters: { search }, parts, pages: { entities: pages } }, 1, (payload) => told.push(payload));
  if (told[0]?.failed) throw new Error(told[0].failed.entities);
  return (told[0]?.entities?.entities ?? []).map((one) => one.name);
}

describe("a list", () => {
  it("grows by asking for the next page alone", async () => {
    expect(await list(1)).toEqual(["1.0", "1.1"]);
    expect(await list(2)).toEqual(["1.0", "1.1", "1.2", "1.3"]);
    expect(server.asked).toHaveLength(1);
    expect(await list(9)).toHaveLength(7);
  });

  it("is not asked for again where the data did not change", async () => {
    await list(4);
    expect(await list(4)).toHaveLength(7);
    expect(server.asked).toHaveLength(1);
  });

  it("is asked for anew, as far as it went, where the data changed", async () => {
    await list(3);
    server.version = 2;
    expect(await list(3)).toEqual(["2.0", "2.1", "2.2", "2.3", "2.4", "2.5"]);
    expect(server.asked).toHaveLength(3);
  });

  it("begins anew when the data change while it grows: never rows of two versions", async () => {
    await list(2);
    server.version = 2;
    expect(await list(3)).toEqual(["2.0", "2.1", "2.2", "2.3", "2.4", "2.5"]);
  });

  it("of another question is another list", async () => {
    await list(2);
    await list(2, "x");
    expect(server.asked[0]).toEqual({ level: "project", limit: 2, search: "x", timeframe: "week" });
  });

  it("that is refused says why", async () => {
    server.refuse = new Refusal("There is no lake.");
    await expect(list(1)).rejects.toThrow("There is no lake.");
  });
});

describe("an export", () => {
  it("follows every page as CSV with one header and as JSON as one list", async () => {
    const asked: Record<string, unknown>[] = [];
    const paged: Carrier = {
      rows: server.rows,
      known: server.known,
      ask: <T,>(_name: string, inputs: Record<string, unknown>) => {
        asked.push(inputs);
        const row = inputs.cursor ? 2 : 1;
        const content = inputs.format === "csv" ? `n\r\n${row}\r\n` : `[{"n": ${row}}]`;
        return Promise.resolve({ content, next_cursor: inputs.cursor ? null : "c" } as T);
      },
    };
    expect((await wholeExport(paged, { agentId: "bot", search: "x" }, "csv")).content).toBe("n\r\n1\r\n2\r\n");
    expect(asked[1]).toEqual({ format: "csv", timeframe: "week", agentId: "bot", limit: 2, cursor: "c" });
    expect(JSON.parse((await wholeExport(paged, {}, "json")).content)).toEqual([{ n: 1 }, { n: 2 }]);
  });

  it("waits as long as the server wishes when it asked too often", async () => {
    const page = { content: "a\r\n1\r\n", next_cursor: null, total: 1 };
    let refused = 0;
    const busy: Carrier = {
      rows: server.rows,
      known: server.known,
      ask: <T,>() => {
        refused += 1;
        return refused < 3 ? Promise.reject(new Refusal("Too many.", false, 0.001)) : Promise.resolve(page as T);
      },
    };
    expect((await wholeExport(busy, {}, "csv")).content).toBe("a\r\n1\r\n");
    expect(refused).toBe(3);
  });

  it("does not try again what was refused for good", async () => {
    server.refuse = new Refusal("This needs the role analyst.");
    await expect(wholeExport(server, {}, "csv")).rejects.toThrow("analyst");
    expect(server.asked).toHaveLength(1);
  });
});
