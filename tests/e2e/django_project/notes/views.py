from django.conf import settings
from django.core.files.base import ContentFile
from django.db import transaction
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt

from notes.models import Note


def index(request):
    return JsonResponse({"version": settings.VERSION, "notes": Note.objects.count()})


def health(request):
    if settings.VERSION == "v4":
        return JsonResponse({"error": "broken"}, status=500)
    Note.objects.first()
    return JsonResponse({"version": settings.VERSION})


@csrf_exempt
def add(request):
    with transaction.atomic():
        note = Note(title="note")
        note.attachment.save("upload.bin", ContentFile(request.body))
    return JsonResponse({"id": note.pk}, status=201)
