// A client of the server of tests/plugins/typed/described.py: tsc reports each expected error that does not occur.
import type { Book, BookRequest, OperationName, Operations } from "./api";

async function send<Name extends OperationName>(
  name: Name,
  packet: Operations[Name]["request"],
): Promise<Operations[Name]["answer"]> {
  return JSON.parse(JSON.stringify({ name, packet })) as Operations[Name]["answer"];
}

export async function use(): Promise<string> {
  const book: Book = await send("books.read", { op: "books.read", id: 7, key: "k" });
  const color: "red" | "green" = book.color;
  const [left, right] = book.size;
  const sum: number = left + book.more.length;
  const request: BookRequest = { id: 1, authors: [{ name: "Thoreau" }], pair: [1], nested: [1, [2]] };
  const added = await send("books.add", {
    op: "books.add",
    book: request,
    other: { isbn: "1" },
    tree: { value: 1, children: [{ value: 2 }] },
    key: "k",
  });
  const pet = await send("pets.add", { op: "pets.add", kind: "cat", key: "k" });
  if ("kind" in pet && pet.kind === "dog") {
    return String(pet.tree.value);
  }
  const failure: Operations["books.read"]["failure"] = { status: "failure", error: "ERR_NOT_FOUND" };
  const streams: true = undefined as unknown as Operations["books.list"]["streams"];

  // @ts-expect-error the id is a number
  await send("books.read", { op: "books.read", id: "7", key: "k" });
  // @ts-expect-error the key is missing
  await send("books.read", { op: "books.read", id: 7 });
  // @ts-expect-error there is no such operation
  await send("books.burn", { op: "books.burn" });
  // @ts-expect-error no color is blue
  const blue: BookRequest = { id: 1, color: "blue" };
  // @ts-expect-error a Success has no title
  const title: string = added.title;
  // @ts-expect-error there is no such code
  const other: Operations["books.read"]["failure"] = { status: "failure", error: "ERR_OTHER" };
  return [color, right, sum, failure.error, streams, blue, title, other].join();
}
